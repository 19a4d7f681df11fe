"""Every claim of the thesis as an entry: a sentence, its numbers, a check on tidy results, a tolerance. A file a chapter."""

from eelib.evaluation.claims.chapter4_corpora import CORPORA
from eelib.evaluation.claims.chapter4_exits import EXITS
from eelib.evaluation.claims.chapter4_layers import LAYERS
from eelib.evaluation.claims.chapter6_agent import AGENT
from eelib.evaluation.claims.chapter6_cost import COST
from eelib.evaluation.claims.chapter6_quality import QUALITY
from eelib.evaluation.claims.chapter6_savings import SAVINGS
from eelib.evaluation.claims.chapter6_trends import TRENDS
from eelib.evaluation.claims.claim import Claim

CHAPTERS: dict[str, list[Claim]] = {
    "Corpora": CORPORA,
    "What layers know": LAYERS,
    "Fixed exits": EXITS,
    "The agent": AGENT,
    "What it saves": SAVINGS,
    "What moves it": TRENDS,
    "Quality": QUALITY,
    "What deciding costs, and rivals": COST,
}
CLAIMS: dict[str, Claim] = {claim.key: claim for claims in CHAPTERS.values() for claim in claims}
