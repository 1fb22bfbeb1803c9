"""A device's own alarms on their way to people: gathered, kept until they are delivered, and sent."""

from edge.alarms.delivery import AlarmDelivery
from edge.alarms.message import Alarm, StreamWarning

__all__ = ["Alarm", "AlarmDelivery", "StreamWarning"]
