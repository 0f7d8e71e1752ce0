from typing import final

from _fastpath.socket import Socket

@final
class Upstream(Socket): ...
