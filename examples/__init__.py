"""One example a framework, each a real app with a scripted model: no key, no network, and no telemetry of CrewAI's."""

import os

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")
