#!/usr/bin/env bash
# The paper's run on one machine of eight GPUs, or on several, under SLURM:
#
#     sbatch recipes/paper/slurm.sh recipes/paper/qwen3-vl-4b.toml
#     sbatch --nodes 4 recipes/paper/slurm.sh recipes/paper/qwen3-vl-4b.toml rollout.type=transformers
#
# One torchrun per machine starts a process per GPU; all meet at the first machine. The job asks for a signal ten minutes
# before its time is up: the run then saves after its step, and the job puts itself in the queue again, to go on from
# there. Data, models and runs must be where every machine sees them. Not tried on a cluster yet (docs/scaling.md).

#SBATCH --job-name prism
#SBATCH --nodes 1
#SBATCH --ntasks-per-node 1
#SBATCH --gpus-per-node 8
#SBATCH --cpus-per-task 64
#SBATCH --time 24:00:00
#SBATCH --signal B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode append
#SBATCH --output runs/slurm-%j.log

set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=8

go_on_later() {
    scontrol requeue "$SLURM_JOB_ID"
    scancel --signal TERM "$SLURM_JOB_ID.0"
}
trap go_on_later USR1

# A step and its checkpoint may take minutes: torchrun waits that long after the signal before it ends processes.
srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node 8 \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first:29500" \
    --shutdown-timeout 540 \
    -m prism run "$@" &
wait $!
