from typing_extensions import disjoint_base

from _fastpath.socket import Socket

@disjoint_base
class ReplyReader(Socket): ...
