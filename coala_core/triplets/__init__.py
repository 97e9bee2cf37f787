"""Stage ``triplets``: prompt, chosen and rejected by alternating population (paper 6.3 and appendix E.2)."""

from coala_core.triplets.alternating import History as History
from coala_core.triplets.alternating import Pairs as Pairs
from coala_core.triplets.alternating import Triplet as Triplet
from coala_core.triplets.alternating import alternating_triplets as alternating_triplets
from coala_core.triplets.build import TripletTable as TripletTable
from coala_core.triplets.build import build_triplets as build_triplets
from coala_core.triplets.build import write_triplets as write_triplets
from coala_core.triplets.columns import TRIPLET_SCHEMA as TRIPLET_SCHEMA
from coala_core.triplets.measures import TextsDigest as TextsDigest
from coala_core.triplets.similarity import reply_similarity as reply_similarity
