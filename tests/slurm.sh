#!/usr/bin/env bash
# A SLURM cluster of two nodes with one CPU each on this machine, for tests: `tests/slurm.sh start FOLDER`, then
# `SLURM_CONF=FOLDER/slurm.conf sbatch ...`, and `tests/slurm.sh stop FOLDER`. As root, with Debian's packages slurmctld,
# slurmd, slurm-client and munge. Nothing outside FOLDER is changed but munge's key, if there is none.
set -euo pipefail
folder=$2
export SLURM_CONF=$folder/slurm.conf

if [[ $1 == stop ]]; then
    for name in slurmd-one slurmd-two slurmctld; do
        [[ -f $folder/$name.pid ]] && kill "$(cat "$folder/$name.pid")" || true
    done
    exit
fi

mkdir -p "$folder"/{state,spool-one,spool-two} /run/munge
[[ -f /etc/munge/munge.key ]] || head -c 1024 /dev/urandom > /etc/munge/munge.key
chown -R munge: /etc/munge /run/munge /var/log/munge
chmod 400 /etc/munge/munge.key
pgrep -x munged > /dev/null || runuser -u munge -- munged
host=$(hostname -s)
cat > "$SLURM_CONF" <<CONF
ClusterName=rig
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
# a job may start again 5 s after it was requeued, not two minutes
AuthInfo=cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
NodeName=one NodeHostname=$host NodeAddr=127.0.0.1 Port=16818 CPUs=1
NodeName=two NodeHostname=$host NodeAddr=127.0.0.1 Port=16819 CPUs=1
PartitionName=all Nodes=one,two Default=YES
CONF
slurmctld -c
slurmd -N one
slurmd -N two
for _ in {1..30}; do
    [[ $(sinfo -h -o %A) == 0/2 ]] && exit
    sleep 1
done
echo "no nodes after 30 s: see $folder/slurmctld.log" >&2
exit 1
