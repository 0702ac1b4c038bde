"""Campaigns: thousands of tasks on one machine or many, by engines that exist; nothing finished is lost."""

from mdsens.campaign.driver import CampaignReport, run
from mdsens.campaign.inputs import InputFile, InputSet
from mdsens.campaign.kinds import GivenTask
from mdsens.campaign.machine import local
from mdsens.campaign.plan import CampaignPlan, read_plan
from mdsens.campaign.receipts import Receipt
from mdsens.campaign.table import CampaignResult, CampaignStatus, CampaignTable, collect, load, status
from mdsens.campaign.task import Task
from mdsens.campaign.worker import run_task

__all__ = [
    "CampaignPlan",
    "CampaignReport",
    "CampaignResult",
    "CampaignStatus",
    "CampaignTable",
    "GivenTask",
    "InputFile",
    "InputSet",
    "Receipt",
    "Task",
    "collect",
    "load",
    "local",
    "read_plan",
    "run",
    "run_task",
    "status",
]
