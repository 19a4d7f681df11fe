#!/usr/bin/env bash
# A SLURM of one node on this machine, for the slow test of executors/slurm. Needs root on Debian or Ubuntu:
#   scripts/slurm.sh start    installs slurm-wlm where it is missing; its files are in build/slurm but for /etc/slurm/slurm.conf
#   scripts/slurm.sh stop
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/build/slurm
conf=/etc/slurm/slurm.conf  # where jobs look, to whom Snakemake hands on none of SLURM's variables

stop() {
    local daemon
    for daemon in slurmctld slurmd munged; do
        if [ -s "$folder/$daemon.pid" ]; then
            kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
            rm -f "$folder/$daemon.pid"
        fi
    done
    if [ -L "$conf" ]; then
        rm "$conf"
    fi
}

start() {
    command -v slurmctld >/dev/null || apt-get install --yes --no-install-recommends slurm-wlm munge
    stop
    if [ -e "$conf" ]; then
        echo "error: this machine has a SLURM of its own: $conf is there." >&2
        exit 2
    fi
    rm -rf "$folder"
    mkdir -p "$folder/state" "$folder/spool"
    # A key, a socket and a process of our own beside whatever munge the machine runs.
    dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
    chmod 600 "$folder/munge.key"
    local socket
    socket=$(mktemp -d)/munge.socket
    munged --force --key-file "$folder/munge.key" --socket "$socket" --pid-file "$folder/munged.pid" \
        --log-file "$folder/munged.log" --seed-file "$folder/munged.seed"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=eelib
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MinJobAge=3600
$(slurmd -C | head -1) NodeAddr=127.0.0.1 State=UNKNOWN
PartitionName=study Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    ln -s "$folder/slurm.conf" "$conf"
    slurmctld
    slurmd
    timeout 60 bash -c 'until sinfo --noheader -o %t | grep -q idle; do sleep 1; done'
}

case "${1:-}" in
start | stop) "$1" ;;
*)
    echo "usage: scripts/slurm.sh start | stop" >&2
    exit 2
    ;;
esac
