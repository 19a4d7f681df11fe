"""Every claim of the thesis as an entry: a sentence, its numbers, a check on tidy results, a tolerance. A file a chapter."""

from eelib.evaluation.claims.chapter4 import CORPORA, LAYERS
from eelib.evaluation.claims.chapter4_exits import EXITS
from eelib.evaluation.claims.chapter6_agent import AGENT
from eelib.evaluation.claims.chapter6_cost import COST
from eelib.evaluation.claims.chapter6_quality import QUALITY
from eelib.evaluation.claims.chapter6_savings import SAVINGS
from eelib.evaluation.claims.claim import Claim

CHAPTERS: dict[str, list[Claim]] = {
    "Corpora": CORPORA,
    "What layers know": LAYERS,
    "Fixed exits": EXITS,
    "The agent": AGENT,
    "What it saves": SAVINGS,
    "Quality": QUALITY,
    "What deciding costs, and rivals": COST,
}
CLAIMS: dict[str, Claim] = {claim.key: claim for claims in CHAPTERS.values() for claim in claims}
