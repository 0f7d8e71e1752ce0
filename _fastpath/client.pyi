from typing import final

from _fastpath.connection import Connection

@final
class Client(Connection): ...
