from typing_extensions import disjoint_base

from _fastpath.response import ResponseWriter

@disjoint_base
class TimedExchange(ResponseWriter): ...
