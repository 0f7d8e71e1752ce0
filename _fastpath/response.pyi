from typing_extensions import disjoint_base

from _fastpath.request import RequestReader

@disjoint_base
class ResponseWriter(RequestReader): ...
