"""What `./run_all.sh` calls for `--verify` and `--compare`."""

import argparse

from eelib.profile import load_profile
from eelib.study.quiet import quieten_libraries
from eelib.study.verify.check import verify
from eelib.study.verify.compare import compare


def run(args: argparse.Namespace) -> int:
    """Verify or compare the profile that is asked for, and give the exit code: 0, or 1 where something is wrong."""
    quieten_libraries()
    profile = load_profile(args.profile, {})
    if args.compare:
        return compare(profile.name)
    return verify(profile)
