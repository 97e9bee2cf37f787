"""What a store may do without: old artifacts and features, and what interrupted runs left.

``settings``   what to remove, as a user says it    ``inventory``  what lies in the store, and what needs what
``choice``     what goes and what stays, and why    ``removal``    taking it away so that a kill leaves order
``last_use``   when an artifact was used            ``holds``      what runs are at work on
"""

from coala_core.housekeeping.choice import Choice, Policy, Verdict, choose
from coala_core.housekeeping.holds import Busy, busy, holding
from coala_core.housekeeping.inventory import Inventory, Item, take_inventory
from coala_core.housekeeping.last_use import last_used, mark_used
from coala_core.housekeeping.removal import remove
from coala_core.housekeeping.settings import HousekeepingConfig, parse_age, parse_size

__all__ = [
    "Busy",
    "Choice",
    "HousekeepingConfig",
    "Inventory",
    "Item",
    "Policy",
    "Verdict",
    "busy",
    "choose",
    "holding",
    "last_used",
    "mark_used",
    "parse_age",
    "parse_size",
    "remove",
    "take_inventory",
]
