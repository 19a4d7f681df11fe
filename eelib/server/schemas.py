"""What clients send and get. Fields of a client that early exit has no use for are allowed and ignored."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
)

from eelib.errors import InputError
from eelib.profile import check_threshold


def _threshold(value: float) -> float:
    try:
        check_threshold(value)
    except InputError as error:
        raise ValueError(str(error)) from error
    return float(value)


Threshold = Annotated[StrictFloat | StrictInt, AfterValidator(_threshold)]
Loss = Annotated[StrictFloat | StrictInt, Field(ge=0, le=1, allow_inf_nan=False)]
NewTokens = Annotated[StrictInt, Field(ge=1)]
# Decoding is greedy: both are checked and change nothing, which the answer says (`early_exit.decoding`).
Temperature = Annotated[StrictFloat | StrictInt, Field(ge=0, allow_inf_nan=False)]
TopP = Annotated[StrictFloat | StrictInt, Field(ge=0, le=1, allow_inf_nan=False)]
Stop = Annotated[list[StrictStr], Field(max_length=16)]


class Options(BaseModel):
    """Ollama's options, with the thesis's own. `num_predict` -1 asks for as many tokens as there may be."""

    model_config = ConfigDict(extra="allow")

    num_predict: NewTokens | Literal[-1] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stop: Stop | StrictStr | None = None
    RL_agent_thresh: Threshold | None = None
    tolerated_loss: Loss | None = None


class FlatParameters(BaseModel):
    """Parameters of Hugging Face's text generation."""

    model_config = ConfigDict(extra="allow")

    max_new_tokens: NewTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stop: Stop | None = None
    return_full_text: StrictBool | None = None
    details: StrictBool | None = None
    exit_threshold: Threshold | None = None
    tolerated_loss: Loss | None = None


class Parameters(FlatParameters):
    """The same; llm-ls nests them once more where its configuration has none."""

    parameters: FlatParameters | None = None


class Request(BaseModel):
    """The ground of all requests: whatever the client, it may say how early tokens leave in each of the ways that any does."""

    model_config = ConfigDict(extra="allow")

    exit_threshold: Threshold | None = None
    tolerated_loss: Loss | None = None
    options: Options | None = None
    parameters: Parameters | None = None
    stream: StrictBool | None = None

    @property
    def all_parameters(self) -> list[FlatParameters]:
        """The parameters, and those nested in them."""
        layers = [self.parameters, self.parameters and self.parameters.parameters]
        return [layer for layer in layers if layer is not None]

    @property
    def thresholds(self) -> list[float | None]:
        """The exit threshold from wherever one may stand."""
        named = [self.exit_threshold, self.options and self.options.RL_agent_thresh]
        return named + [layer.exit_threshold for layer in self.all_parameters]

    @property
    def losses(self) -> list[float | None]:
        """The tolerated loss from wherever one may stand."""
        holders = [self, self.options, *self.all_parameters]
        return [holder.tolerated_loss for holder in holders if holder is not None]


class GenerateRequest(Request):
    """Hugging Face's request, and the thesis's (Listing 5)."""

    inputs: StrictStr


class OllamaRequest(Request):
    """Ollama's request."""

    prompt: StrictStr
    model: StrictStr | None = None
    raw: StrictBool | None = None


class Part(BaseModel):
    """A part of a message; those without a text are passed over."""

    model_config = ConfigDict(extra="allow")

    text: StrictStr | None = None


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(extra="allow")

    role: StrictStr
    content: StrictStr | list[Part] | None = None


class ChatRequest(Request):
    """A chat's request, OpenAI's or Ollama's. The last message of the user's is the code before the cursor."""

    messages: Annotated[list[Message], Field(min_length=1)]
    model: StrictStr | None = None
    max_tokens: NewTokens | None = None
    max_completion_tokens: NewTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stop: Stop | StrictStr | None = None
    n: Literal[1] | None = None
    stream_options: "StreamOptions | None" = None

    @property
    def source(self) -> str:
        """The text of the user's last message; empty where there is none."""
        said = [message.content or "" for message in self.messages if message.role == "user"]
        last = said[-1] if said else ""
        return last if isinstance(last, str) else "".join(part.text or "" for part in last)


class StreamOptions(BaseModel):
    """OpenAI's options of a stream."""

    model_config = ConfigDict(extra="allow")

    include_usage: StrictBool | None = None


class CompletionRequest(Request):
    """OpenAI's request. One prompt, one choice."""

    prompt: StrictStr | Annotated[list[StrictStr], Field(min_length=1, max_length=1)]
    model: StrictStr | None = None
    max_tokens: NewTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stop: Stop | StrictStr | None = None
    n: Literal[1] | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    stream_options: StreamOptions | None = None


class Segments(BaseModel):
    """Code before and after the cursor. The model completes what is before."""

    model_config = ConfigDict(extra="allow")

    prefix: StrictStr
    suffix: StrictStr | None = None


class TabbyRequest(Request):
    """Tabby's request."""

    language: StrictStr | None = None
    segments: Segments


def _has(field: str) -> Discriminator:
    """Tells two requests of one route apart by a field; tags in brackets, which no error names."""
    return Discriminator(
        lambda body: f"[{field}]" if isinstance(body, dict) and field in body else "[prompt]"
    )


OllamaOrGenerate = Annotated[
    Annotated[OllamaRequest, Tag("[prompt]")] | Annotated[GenerateRequest, Tag("[inputs]")], _has("inputs")
]
CompletionOrTabby = Annotated[
    Annotated[CompletionRequest, Tag("[prompt]")] | Annotated[TabbyRequest, Tag("[segments]")],
    _has("segments"),
]


class EarlyExit(BaseModel):
    """What early exit did in one completion.

    `layers_used` has the layer that each generated token left at; `tokens` what each is, as
    an editor shows it; FLOPs are counted by formula, without the agent's own, and without those of the prompt's tokens that
    are kept from earlier requests (`prompt_tokens_warm`), which nothing runs.
    """

    threshold: float
    tolerated_loss: float | None
    layers_used: list[int]
    mean_layers: float | None
    total_layers: int
    exit_points: list[int]
    energy_j: float | None
    energy_source: Literal["nvml", "rapl", "none"]
    energy_scope: str
    flops: int | None
    flops_full_depth: int | None
    tokens: list[str]
    cache: str
    decoding: Literal["greedy"] = "greedy"
    prompt_tokens: int
    prompt_tokens_warm: int
    prompt_tokens_dropped: int
    source_characters_dropped: int
    note: str | None
    seconds: float


class Error(BaseModel):
    """An error on the generate routes, as llm-ls and Hugging Face's clients read it."""

    error: str


class OpenAIError(BaseModel):
    """An error on `/v1`: `detail` as llm-ls reads it, `error` as OpenAI's clients do."""

    detail: list[dict[str, str]]
    error: dict[str, Any]
