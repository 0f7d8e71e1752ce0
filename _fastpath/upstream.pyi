from typing import final

from _fastpath.reply import ReplyReader

@final
class Upstream(ReplyReader): ...
