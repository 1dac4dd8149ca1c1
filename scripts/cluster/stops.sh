# Functions of both batch scripts: run a step that can be stopped, and queue a job again.
# shellcheck shell=bash
# In an array, this task alone: the id of the last task is also the id of the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}}
job=${job:-$SLURM_JOB_ID}

# run_step COMMAND ...: run a command and store its exit code in $code. Slurm sends this script USR1
# before the time limit; the step then gets TERM, as it does when the job is preempted.
run_step() {
  trap 'scancel --signal=TERM "$job"' USR1
  "$@" &
  local step=$!
  wait "$step"
  code=$?
  while kill -0 "$step" 2>/dev/null; do # the trap ended the wait, and the step still runs
    wait "$step"
    code=$?
  done
}

# Print what Slurm knows about the job. A job that was cancelled, or that Slurm itself queues again,
# has no JobState=RUNNING.
show_job() {
  scontrol show job "$job" --oneliner
}

# queue_again NAME: end this script. Slurm starts it again from the beginning when nodes are free.
queue_again() {
  echo "$1: stopped before the end; queued again, to resume from the last checkpoint"
  scontrol requeue "$job" && exit
}
