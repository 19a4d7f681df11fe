"""Which places of a node belong to a study, and what decides their results beside fields of the profile."""

from pathlib import Path

from eelib.data.shipped import shipped_hash
from eelib.models.loading import fingerprint
from eelib.profile import Profile
from eelib.provenance import folder_hash
from eelib.study.node import Place
from eelib.training import tuned


def content(profile: Profile, place: Place) -> dict:
    """What a corpus is read from."""
    data = profile.data
    if data.source == "shipped":
        return {"content": shipped_hash(place["language"])}
    return {"content": folder_hash(Path(data.path)) if data.path else "the hub's pinned revision"}


def is_studied(profile: Profile, place: Place) -> bool:
    """Whether a place is of the model and language whose layers are studied over the steps of a fine-tuning."""
    return (place["model"], place["language"]) == (profile.epoch_study.model, profile.epoch_study.language)


def trained_from(profile: Profile, place: Place) -> dict:
    """What a fine-tuning starts from; it keeps the finished model alone."""
    return {"fingerprint": fingerprint(place["model"]), "snapshots": 1}


def watched_from(profile: Profile, place: Place) -> dict:
    """The same for the fine-tuning whose steps are studied: always one of this run, since what ships has no snapshots."""
    return {"fingerprint": fingerprint(place["model"]), "kind": "aggregated"}


def there_already(profile: Profile, place: Place) -> dict | None:
    return tuned.there_already(place["model"], place["kind"], profile.fine_tuning.shipped)


def is_timed(profile: Profile, place: Place) -> bool:
    return place["context_fraction"] in profile.evaluation.timed_fractions


def is_of_all_languages(profile: Profile, place: Place) -> bool:
    """Whether one fine-tuned model is that of all languages, of which there are several."""
    ready = tuned.there_already(place["model"], "aggregated", profile.fine_tuning.shipped)
    return ready is not None and len(profile.languages) > 1


def is_first(profile: Profile, place: Place) -> bool:
    """Whether a place is of the first setting."""
    return place["model"] == profile.models[0] and is_first_language(profile, place)


def is_first_language(profile: Profile, place: Place) -> bool:
    return place["language"] == profile.languages[0]


def is_last(profile: Profile, place: Place) -> bool:
    """Whether a place is of the profile's last model, which is its smallest: systems look at the whole vocabulary at every exit point."""
    return place["model"] == profile.models[-1]
