"""CloudWatch's logs of local jobs, as much of them as following a job takes (notebook 12)."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.cloud.control_plane import ControlPlane
from helpers.cloud.faults import ServiceFault
from helpers.cloud.kinds import JOB

GROUP = "/aws/sagemaker/TrainingJobs"


def read_logs(plane: ControlPlane, operation: str, request: Mapping) -> dict:
    """DescribeLogStreams and GetLogEvents of a job, whose one stream is "<job>/algo-1"; a token is "f/" and the number
    of lines that were read."""
    if request.get("logGroupName") != GROUP:
        return {"logStreams": [], "events": []}
    if operation == "DescribeLogStreams":
        streams = [f"{name}/algo-1" for name in _jobs(plane)]
        prefix = request.get("logStreamNamePrefix", "")
        return {"logStreams": [{"logStreamName": stream} for stream in streams if stream.startswith(prefix)]}
    if operation != "GetLogEvents":
        raise ServiceFault("UnknownOperationException", f"{operation} is not done locally.")
    name = request["logStreamName"].removesuffix("/algo-1")
    if name not in _jobs(plane):
        raise ServiceFault("ResourceNotFoundException", "The specified log stream does not exist.")
    job = plane.resources[JOB][name].job
    over, lines = job.ended is not None, job.log.read_text(errors="replace").splitlines(keepends=True)
    whole = [line.rstrip() for line in lines if over or line.endswith("\n")]
    begin = int(request.get("nextToken", "f/0").removeprefix("f/"))
    events = [{"timestamp": int(1e3 * job.began), "message": line} for line in whole[begin:]]
    token = f"f/{len(whole)}"
    return {"events": events, "nextForwardToken": token, "nextBackwardToken": token}


def _jobs(plane: ControlPlane) -> Mapping:
    return plane.resources[JOB]
