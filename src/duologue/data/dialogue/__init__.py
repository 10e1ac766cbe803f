"""Two-channel conversations to train and test a full-duplex model on.

`texts` finds what is said, `clips` says it, `timeline` decides when, `channels` makes the two sides of the line,
`manifest` and `stereo` keep the result as Parquet or as stereo WAV, `making` runs it all, `statistics` looks back.
"""

from duologue.data.dialogue.config import DialogueConfig, DialogueSource
from duologue.data.dialogue.making import import_stereo, make_dialogues
from duologue.data.dialogue.manifest import Conversation, read_conversations
from duologue.data.dialogue.stereo import is_stereo_list

__all__ = [
    "Conversation",
    "DialogueConfig",
    "DialogueSource",
    "import_stereo",
    "is_stereo_list",
    "make_dialogues",
    "read_conversations",
]
