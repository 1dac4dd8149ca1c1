# What the batch scripts share, sourced by them: a step that is told to stop, and a job that queues again.
# shellcheck shell=bash
# Of an array this task alone: the id of its last task is that of the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}}
job=${job:-$SLURM_JOB_ID}

# run_step COMMAND ...: run it to its end, which gives $code. Slurm warns this script of the time limit; the step is told by TERM, as Slurm tells it of preemption.
run_step() {
  trap 'scancel --signal=TERM "$job"' USR1
  "$@" &
  local step=$!
  wait "$step"
  code=$?
  while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done # the trap ends a wait before the step ends
}

# What Slurm knows of the job. JobState=RUNNING leaves out what was cancelled or is requeued by Slurm.
show_job() {
  scontrol show job "$job" --oneliner
}

# queue_again NAME: end this script, and start it again from its beginning as soon as there is room.
queue_again() {
  echo "$1: stopped before the end; queued again, to go on from the last checkpoint"
  scontrol requeue "$job" && exit
}
