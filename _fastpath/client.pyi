from typing import final

from _fastpath.deadlines import TimedExchange

@final
class Client(TimedExchange): ...
