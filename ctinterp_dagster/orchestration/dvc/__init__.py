"""A DVC project in Dagster: DVC makes the graph, Dagster shows and drives it.

Nothing here knows what the stages compute.
"""

from .assets import build_dvc_assets
from .component import DvcProjectComponent
from .invocation import DvcInvocation
from .project import DvcProject
from .remote import RemoteGitDvcProject
from .resource import DvcCliResource
from .selection import select_stages
from .sensor import build_dvc_sensor
from .stage import DvcIndex, DvcInput, DvcOutput, DvcProjectError, DvcSource, DvcStage
from .translator import DvcTranslator

__all__ = [
    "DvcCliResource",
    "DvcIndex",
    "DvcInput",
    "DvcInvocation",
    "DvcOutput",
    "DvcProject",
    "DvcProjectComponent",
    "DvcProjectError",
    "DvcSource",
    "DvcStage",
    "DvcTranslator",
    "RemoteGitDvcProject",
    "build_dvc_assets",
    "build_dvc_sensor",
    "select_stages",
]
