#!/bin/bash
# LeNet by all GPUs of two nodes under Slurm, one rank a GPU: sbatch docs/slurm.sh
# Tried on CPUs, two nodes that were one machine's; not yet on a cluster. What differs between
# clusters: the lines marked with <--.
#SBATCH --job-name=lenet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4      # <-- GPUs of a node
#SBATCH --gpus-per-node=4        # <-- the same; without GPUs leave it out
#SBATCH --cpus-per-task=8        # <-- a rank's threads; ranks divide what they have to share
#SBATCH --time=00:30:00
#SBATCH --signal=TERM@60         # a minute before the end: the step in hand is finished and saved
#SBATCH --requeue                # after a node failed: begin again here, from the last checkpoint
#SBATCH --open-mode=append
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"           # a folder that all nodes see

# mpi4py must be of the MPI that srun speaks to:
#   module load openmpi                                          # <-- the cluster's MPI
#   .venv/bin/pip install --no-binary mpi4py 'mpi4py>=4'
#   .venv/bin/pip install -e '.[cuda12]' nvidia-nccl-cu12
# A requeued job keeps its number; another goes on with its run by sbatch --export=ALL,RUN=runs/...
RUN=${RUN:-runs/slurm-$SLURM_JOB_ID}
DATA=mnist                       # <-- a folder of IDX files

if [ -e "$RUN/checkpoint.safetensors" ]; then
    options=(--resume "$RUN")
else
    rm -rf "$RUN"                # stopped before its first checkpoint
    options=(--runs-dir "$(dirname "$RUN")" --name "$(basename "$RUN")"
        --data-dir "$DATA" --batch-size 1024)
fi

# --kill-on-bad-exit: when a rank dies, Slurm ends the others too.
# --mpi: see `srun --mpi=list`; pmix for Open MPI, pmi2 for MPICH.  <--
srun --mpi=pmix --kill-on-bad-exit=1 \
    .venv/bin/python -m lenet train --distributed --no-progress --device gpu "${options[@]}"
