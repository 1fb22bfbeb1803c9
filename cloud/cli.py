"""The commands of the service, of training and of evaluation."""

from cloud.api import commands as api_commands
from cloud.bench import commands as bench_commands
from cloud.demo import commands as demo_commands
from cloud.evaluation import commands as evaluation_commands
from cloud.federation import commands as federation_commands
from cloud.retraining import commands as retraining_commands
from cloud.service import api_commands as service_api_commands
from cloud.service import commands as service_commands
from cloud.service import (
    comparison_commands,
    device_commands,
    group_commands,
    key_commands,
    maintenance_commands,
    notice_commands,
    rollout_commands,
    user_commands,
)
from cloud.training import commands as training_commands
from shared.cli import CommandTree


def register(tree: CommandTree) -> None:
    """Hang the service's commands into the tree."""
    service_commands.add_commands(tree)
    device_commands.add_commands(tree)
    key_commands.add_commands(tree)
    group_commands.add_commands(tree)
    service_api_commands.add_commands(tree)
    notice_commands.add_commands(tree)
    rollout_commands.add_commands(tree)
    comparison_commands.add_commands(tree)
    user_commands.add_commands(tree)
    maintenance_commands.add_commands(tree)
    training_commands.add_commands(tree)
    retraining_commands.add_commands(tree)
    evaluation_commands.add_commands(tree)
    federation_commands.add_commands(tree)
    api_commands.add_commands(tree)
    demo_commands.add_commands(tree)
    bench_commands.add_commands(tree)
