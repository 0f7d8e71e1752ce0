from typing import final

from _fastpath.end import End

@final
class Pipe(End): ...
