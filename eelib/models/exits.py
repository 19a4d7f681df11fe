"""Exit points of a model and the weights their losses get (thesis, Section 4.4)."""

from eelib.errors import InputError

FIRST_EXIT = 4
FIRST_HALF_BUDGET, SECOND_HALF_BUDGET, LAST_LAYER_BUDGET = 0.7, 0.2, 0.1
DECAY = 0.9


def exit_points(total_layers: int) -> list[int]:
    """Layers (counted 1..L) after which the model may stop; the last layer is no exit point.

    The first is layer 4; every second layer follows up to the middle, then every fourth (Section 4.4).
    A model too shallow for any gives InputError.
    """
    half = total_layers // 2
    first_half = list(range(FIRST_EXIT, half + 1, 2))
    start = first_half[-1] if first_half else FIRST_EXIT
    points = first_half + list(range(start + 4, total_layers, 4))
    if not points:
        raise InputError(
            f"A model of {total_layers} layers has no exit point: the first is layer {FIRST_EXIT} of at least 8."
        )
    return points


def loss_weights(total_layers: int, decay: float = DECAY, scheme: str = "thesis") -> dict[int, float]:
    """Weights of the losses of all exit points and the last layer, by layer.

    `scheme` is "thesis", "uniform" (as LITE's, Varshney et al.) or "linear" in the layer (as LayerSkip's, Elhoushi et al.).
    """
    layers = [*exit_points(total_layers), total_layers]
    if scheme == "uniform":
        return dict.fromkeys(layers, 1 / len(layers))
    if scheme == "linear":
        return {layer: layer / sum(layers) for layer in layers}
    return _thesis_weights(total_layers, decay)


def shallow_layer(total_layers: int) -> int:
    """Where training's shallow steps end: the first exit point past the middle, or the last one where none lies there."""
    points = exit_points(total_layers)
    return next((layer for layer in points if layer > total_layers // 2), points[-1])


def _thesis_weights(total_layers: int, decay: float) -> dict[int, float]:
    """Weight of each exit point's loss and of the last layer's, by layer (Eq. 4.3 and 4.4).

    Exit points of the first half share 0.7 and those of the second half 0.2, each decaying geometrically by `decay`; the
    last layer has 0.1. They sum to 1 when both halves have an exit point.
    """
    points = exit_points(total_layers)
    half = total_layers // 2
    weights: dict[int, float] = {}
    for budget, group in (
        (FIRST_HALF_BUDGET, [layer for layer in points if layer <= half]),
        (SECOND_HALF_BUDGET, [layer for layer in points if layer > half]),
    ):
        ratios = [decay**i for i in range(len(group))]
        weights |= {layer: budget * ratio / sum(ratios) for layer, ratio in zip(group, ratios, strict=True)}
    return weights | {total_layers: LAST_LAYER_BUDGET}
