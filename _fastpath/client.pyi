from typing import final

from _fastpath.response import ResponseWriter

@final
class Client(ResponseWriter): ...
