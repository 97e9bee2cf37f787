"""Files of conversations or ready pairs in, checked records and counted rejects out."""

from coala_core.sources.conversations import read_conversations as read_conversations
from coala_core.sources.files import SourceFile as SourceFile
from coala_core.sources.files import resolve_conversations as resolve_conversations
from coala_core.sources.layouts import parse_row as parse_row
from coala_core.sources.reader import read_rows as read_rows
from coala_core.sources.records import Conversation as Conversation
from coala_core.sources.records import Fault as Fault
from coala_core.sources.records import Preference as Preference
from coala_core.sources.records import RatedResponse as RatedResponse
from coala_core.sources.records import Reject as Reject
from coala_core.sources.records import Role as Role
from coala_core.sources.records import Row as Row
from coala_core.sources.records import RowError as RowError
from coala_core.sources.records import Turn as Turn
