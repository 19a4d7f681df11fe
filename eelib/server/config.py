"""What a server is configured with."""

from dataclasses import dataclass

from eelib.decoding.cache import CacheMode
from eelib.errors import InputError
from eelib.profile import check_threshold


@dataclass(frozen=True)
class ServerConfig:
    """The agent's default, the cache mode and the limits."""

    threshold: float = 0.9  # of requests that name none; the thesis's Listing 5
    cache_mode: CacheMode = CacheMode.PROPAGATE  # Section 4.3.1: what is skipped is really saved
    new_tokens: int = 15  # of requests that name none; the thesis's T
    max_new_tokens: int = 128  # a request may ask for
    context: int = 1024  # tokens of a prompt and its answer, where the model knows so many positions
    warm_bytes: int = 256 * 1024**2  # of keys and values kept between requests; 0: none
    side_by_side: int = 4  # requests that decode in turns, a token each
    queue: int = 32  # requests that may wait beyond these
    deadline: float = 30.0  # seconds from a request's arrival to its end
    max_body: int = 256 * 1024  # bytes
    token: str | None = None  # bearer token that requests must carry; None: none
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "::1")  # names a request may address

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        for name, least in {
            "new_tokens": 1,
            "max_new_tokens": self.new_tokens,
            "context": 2,
            "warm_bytes": 0,
            "side_by_side": 1,
            "queue": 0,
            "max_body": 1,
        }.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: allowed are values from {least}.")
        if not 0 < self.deadline < float("inf"):
            raise InputError(f"deadline is {self.deadline}: allowed are seconds above 0.")
