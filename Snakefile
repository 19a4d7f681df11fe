# The rules by which Snakemake makes the study's nodes: one for each job of a plan that `eelib.study.jobs` writes, in whose
# folder Snakemake runs. `./run_all.sh` calls it. A rule's output is a sentinel only, since Snakemake deletes outputs before
# it makes them anew, and a stage goes on from what a killed one left.

import json
import sys
from pathlib import Path

PLAN = Path("plan.json").absolute()
plan = json.loads(PLAN.read_text())


rule all:
    input:
        [f"{name}.done" for name in plan["jobs"]],


for position, (name, job) in enumerate(plan["jobs"].items()):

    rule:
        name:
            f"make_{position}"
        input:
            [f"{before}.done" for before in job["after"]],
        output:
            touch(f"{name}.done"),
        log:
            f"{name}.log",
        params:
            job=name,
            root=Path(workflow.basedir),
            python=sys.executable,
        priority: -position
        threads: plan["threads"] if job["timed"] else 1
        resources:
            slurm_extra="--exclusive" if job["timed"] else "",
        shell:
            "exec 2> {log:q}; cd {params.root:q}; exec {params.python:q} -m eelib.study.jobs {PLAN:q} {params.job:q}"
