"""Every metric, defined once. `prometheus_client` multiprocess mode in every process.

The supervisor sets `PROMETHEUS_MULTIPROC_DIR` for its children, wipes that directory at start,
and removes a dead process's live gauges. Rates and means are PromQL's job, with two exceptions
that are asked for by name: tokens per second, and llama.cpp's own averages.
"""

from __future__ import annotations

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_GAPS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)

# --- the engine ------------------------------------------------------------------------------
PROMPT_TOKENS = Counter(
    "parley_prompt_tokens_total", "Prompt tokens accepted.", ["model", "cached"]
)
GENERATED_TOKENS = Counter("parley_generated_tokens_total", "Tokens generated.", ["model"])
TOKENS_PER_SECOND = Gauge(
    "parley_generation_tokens_per_second",
    "Tokens generated per second over the last 10 s.",
    ["model"],
    multiprocess_mode="livesum",
)
TIME_TO_FIRST_TOKEN = Histogram(
    "parley_time_to_first_token_seconds",
    "From submission to the first token.",
    ["model"],
    buckets=_SECONDS,
)
INTER_TOKEN = Histogram(
    "parley_inter_token_seconds", "Between tokens of one answer.", ["model"], buckets=_GAPS
)
QUEUE_SECONDS = Histogram(
    "parley_queue_seconds", "From submission to a slot.", ["model"], buckets=_SECONDS
)
PREFILL_SECONDS = Histogram(
    "parley_prefill_seconds", "Reading one prompt.", ["model"], buckets=_SECONDS
)
REQUEST_SECONDS = Histogram(
    "parley_request_seconds", "From submission to the last token.", ["model"], buckets=_SECONDS
)
REQUESTS_RUNNING = Gauge(
    "parley_requests_running", "Requests that hold a slot.", multiprocess_mode="livesum"
)
REQUESTS_WAITING = Gauge(
    "parley_requests_waiting", "Requests that wait for a slot.", multiprocess_mode="livesum"
)
REQUESTS_CANCELLED = Counter(
    "parley_requests_cancelled_total", "Requests cancelled by their client.", ["stage"]
)
SLOTS_YIELDED = Counter(
    "parley_slots_yielded_total",
    "Requests that gave up their slot for another, to go on later.",
    ["priority"],
)
DEADLINES_MISSED = Counter(
    "parley_deadlines_missed_total",
    "Requests whose own time was over: refused at once, without a first token, or cut short.",
    ["stage"],
)
REQUESTS_FINISHED = Counter(
    "parley_requests_finished_total", "Requests that ended in the engine.", ["model", "reason"]
)
SLOTS = Gauge("parley_slots", "Slots by what they do now.", ["state"], multiprocess_mode="livesum")
KV_TOKENS = Gauge("parley_kv_tokens", "Tokens resident in the slots.", multiprocess_mode="livesum")
PREFIX_CACHE_TOKENS = Counter(
    "parley_prefix_cache_tokens_total", "Prompt tokens by where they came from.", ["outcome"]
)
CROSS_PRINCIPAL_HITS = Counter(
    "parley_prefix_cache_cross_principal_hits_total",
    "Tokens reused across principals; must stay 0.",
)
CONSTRAINED_REQUESTS = Counter(
    "parley_constrained_requests_total", "Requests whose answer is held to a grammar.", ["kind"]
)
GRAMMAR_SECONDS = Histogram(
    "parley_grammar_compile_seconds", "Compiling one grammar.", buckets=_GAPS
)
MASK_SECONDS = Counter(
    "parley_grammar_mask_seconds_total", "Seconds spent on finding out what a grammar allows."
)
INPUTS = Counter("parley_inputs_total", "Inputs that became vectors or scores.", ["model"])
INPUT_TOKENS = Counter(
    "parley_input_tokens_total", "Tokens of inputs that became vectors or scores.", ["model"]
)
VECTOR_CALL_SECONDS = Histogram(
    "parley_vector_call_seconds",
    "One call of an embedding or reranking model, for several inputs.",
    ["model"],
    buckets=_SECONDS,
)
VECTOR_REQUEST_SECONDS = Histogram(
    "parley_vector_request_seconds",
    "From submission to the last vector or score.",
    ["model"],
    buckets=_SECONDS,
)
PREFIX_CACHE_HITS = Counter(
    "parley_prefix_cache_hits_total",
    "Prompts whose beginning was there: in their slot, in another, in memory, on disk.",
    ["source"],
)
PREFIX_CACHE_SAVED_SECONDS = Counter(
    "parley_prefix_cache_saved_seconds_total",
    "What reading these beginnings would have taken.",
    ["source"],
)
PARKED_BYTES = Gauge(
    "parley_parked_bytes",
    "Conversations outside of the slots.",
    ["tier"],
    multiprocess_mode="livesum",
)
PARKED_CONVERSATIONS = Gauge(
    "parley_parked_conversations",
    "Conversations outside of the slots.",
    ["tier"],
    multiprocess_mode="livesum",
)
SPECULATION_TOKENS = Counter(
    "parley_speculation_tokens_total",
    "Tokens guessed ahead: accepted where the model says the same, or rejected.",
    ["outcome"],
)
MODEL_LOADED = Gauge(
    "parley_model_loaded",
    "1 while a process has this model ready.",
    ["model"],
    multiprocess_mode="livemax",
)
MODEL_LOAD_SECONDS = Gauge(
    "parley_model_load_seconds",
    "How long the last load took.",
    ["model"],
    multiprocess_mode="livemostrecent",
)
RESIDENT_MEMORY = Gauge(
    "parley_process_resident_memory_bytes",
    "Resident memory.",
    ["role"],
    multiprocess_mode="livesum",
)

# --- llama.cpp's own names, so that existing dashboards work ----------------------------------
LLAMACPP_PROMPT_TOKENS = Counter("llamacpp:prompt_tokens_total", "Prompt tokens computed.")
LLAMACPP_PROMPT_TOKENS_CACHED = Counter(
    "llamacpp:prompt_tokens_cached_total", "Prompt tokens reused from the cache."
)
LLAMACPP_PROMPT_SECONDS = Counter("llamacpp:prompt_seconds_total", "Seconds reading prompts.")
LLAMACPP_TOKENS_PREDICTED = Counter("llamacpp:tokens_predicted_total", "Tokens generated.")
LLAMACPP_TOKENS_PREDICTED_SECONDS = Counter(
    "llamacpp:tokens_predicted_seconds_total", "Seconds generating, summed over requests."
)
LLAMACPP_PROMPT_RATE = Gauge(
    "llamacpp:prompt_tokens_seconds",
    "Mean prompt tokens per second.",
    multiprocess_mode="livemostrecent",
)
LLAMACPP_PREDICTED_RATE = Gauge(
    "llamacpp:predicted_tokens_seconds",
    "Mean tokens per second per request.",
    multiprocess_mode="livemostrecent",
)
LLAMACPP_PROCESSING = Gauge(
    "llamacpp:requests_processing", "Requests that hold a slot.", multiprocess_mode="livesum"
)
LLAMACPP_DEFERRED = Gauge(
    "llamacpp:requests_deferred", "Requests that wait for a slot.", multiprocess_mode="livesum"
)
LLAMACPP_DECODES = Counter("llamacpp:n_decode_total", "Calls of llama_decode.")
LLAMACPP_BUSY_SLOTS = Gauge(
    "llamacpp:n_busy_slots_per_decode",
    "Mean slots generating per decode call.",
    multiprocess_mode="livemostrecent",
)
LLAMACPP_TOKENS_MAX = Gauge(
    "llamacpp:n_tokens_max", "Most tokens that a slot has held.", multiprocess_mode="livemax"
)

# --- the workers and the supervisor -----------------------------------------------------------
HTTP_REQUESTS = Counter(
    "parley_http_requests_total", "HTTP requests.", ["route", "method", "status"]
)
RATE_LIMITED = Counter(
    "parley_rate_limited_total",
    "Requests refused for a limit: requests_per_minute, tokens_per_minute, tokens_per_day, "
    "tokens_per_month, streams, or wrong_access_tokens.",
    ["limit"],
)
HTTP_SECONDS = Histogram(
    "parley_http_request_seconds", "From request to last byte.", ["route"], buckets=_SECONDS
)
REQUESTS = Counter(
    "parley_requests_total", "Chat requests by dialect and HTTP status.", ["dialect", "status"]
)
ENGINE_UP = Gauge(
    "parley_engine_up",
    "1 while the worker that answers this scrape has a ready engine, or one that is asleep.",
    multiprocess_mode="livemostrecent",
)
ENGINE_ASLEEP = Gauge(
    "parley_engine_asleep",
    "1 while the model has left memory for lack of requests.",
    multiprocess_mode="livemostrecent",
)
ENGINE_RESTARTS = Gauge(
    "parley_engine_restarts_total",
    "Engine restarts since the service started.",
    multiprocess_mode="livemax",
)
BUILD_INFO = Gauge(
    "parley_build_info",
    "Always 1; the version is the label.",
    ["version"],
    multiprocess_mode="livemax",
)


def exposition() -> bytes:
    """The text that Prometheus scrapes, merged over all processes of the service.

    A process that was started alone, without a directory to share, tells only of itself.
    """
    if values.ValueClass is values.MutexValue:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
