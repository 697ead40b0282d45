#!/usr/bin/env bash
# The paper's run on one machine of eight GPUs, or on several, under SLURM:
#
#     . .venv/bin/activate
#     mkdir -p runs
#     sbatch recipes/paper/slurm.sh recipes/paper/qwen3-vl-4b.toml
#     sbatch --nodes 4 recipes/paper/slurm.sh recipes/paper/qwen3-vl-4b.toml
#
# One torchrun per machine starts a process per GPU; all meet at the first machine. Fifteen minutes before its time is up
# the job is sent a signal, which it passes on: the run saves after its step, and the job queues itself again, to go on
# from there: ten times for the 234 hours that the run above is planned at. Data, models and runs must lie where every
# machine sees them. Not tried on a cluster (docs/scaling.md).

#SBATCH --job-name prism
#SBATCH --nodes 1
#SBATCH --ntasks-per-node 1
#SBATCH --gpus-per-node 8
#SBATCH --cpus-per-task 64
#SBATCH --time 24:00:00
#SBATCH --signal B:USR1@900
#SBATCH --requeue
#SBATCH --open-mode append
#SBATCH --output runs/slurm-%j.log

set -uo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=8
# A step and its checkpoint may take minutes: so long torchrun waits for the processes after the signal. It reads this
# since torch 2.12; 2.11 always waits 30 seconds.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=840

is_out_of_time=false
stop() {
    is_out_of_time=true
    scancel --signal TERM "$SLURM_JOB_ID.0"
}
trap stop USR1

# A torchrun that fails does not end those of the other machines: srun does. From 22.05 on there are versions of SLURM in
# which a step has one CPU a task unless it asks for more.
srun --kill-on-bad-exit=1 --cpus-per-task "$SLURM_CPUS_PER_TASK" torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node 8 \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first:29500" \
    -m prism run "$@" &
step=$!

wait "$step"
status=$?
if $is_out_of_time; then
    # The signal ended the wait, and not what it waited for.
    wait "$step"
    status=$?
    [ "$status" -eq 0 ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
