"""Jobs that would not run, or not together."""

from tests.deploy.kubernetes.broken.mutation import (
    CLUSTER,
    Mutation,
    changed,
    container,
    named,
    pod,
    replaced,
    without,
)

MUTATIONS = (
    Mutation(
        "a job is restarted in place",
        "jobs",
        CLUSTER,
        changed(pod("train", "Job"), "restartPolicy", "OnFailure"),
    ),
    Mutation(
        "a drained node is a failure",
        "jobs",
        CLUSTER,
        lambda world: world.one("Job", "train")["spec"]["podFailurePolicy"]["rules"].pop(0),
    ),
    Mutation(
        "a flag does not exist", "jobs", CLUSTER, replaced("generate", "--database", "--data-base")
    ),
    Mutation(
        "a program does not exist",
        "jobs",
        CLUSTER,
        changed(container("shell", "Job"), "command", 0, "slumber"),
    ),
    Mutation("a verb does not exist", "jobs", CLUSTER, replaced("train", "melgan", "mel-gan")),
    Mutation(
        "a shard is nobody's",
        "jobs",
        CLUSTER,
        changed(named("Job", "extract"), "spec", "completions", 3),
    ),
    Mutation(
        "all pods do the same",
        "jobs",
        CLUSTER,
        replaced("extract", "$(JOB_COMPLETION_INDEX)", "0"),
    ),
    Mutation(
        "a variable is nothing",
        "jobs",
        CLUSTER,
        replaced("generate", "JOB_COMPLETION_INDEX", "JOB_INDEX"),
    ),
    Mutation(
        "nodes wait for one more",
        "jobs",
        CLUSTER,
        replaced("train-nodes", "--nnodes=2", "--nnodes=3"),
    ),
    Mutation(
        "nodes meet nowhere",
        "jobs",
        CLUSTER,
        replaced("train-nodes", "train-nodes-0.train-nodes", "train-nodes-0"),
    ),
    Mutation(
        "pods have no names", "jobs", CLUSTER, without(pod("train-nodes", "Job"), "subdomain")
    ),
    Mutation(
        "nodes meet only once they are ready",
        "jobs",
        CLUSTER,
        without(named("Service", "train-nodes"), "spec", "publishNotReadyAddresses"),
    ),
)
