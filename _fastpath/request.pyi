from typing_extensions import disjoint_base

from _fastpath.connection import Connection

@disjoint_base
class RequestReader(Connection): ...
