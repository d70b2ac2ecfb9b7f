#!/usr/bin/env python3
"""Writes monitoring/dashboards/*.json, the Grafana dashboards, from the panels below.

usage: monitoring/make_dashboards.py [--check]    (--check: fails if a file would change)
"""

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
NS = 'namespace=~"$namespace"'
GATEWAY = f'role="gateway",{NS},model_name=~"$model"'
GATEWAY_ALL = f'role="gateway",{NS}'
WORKER = f'role="worker",{NS}'
COORDINATOR = f'role="coordinator",{NS}'
RATE = "[$__rate_interval]"


def quantiles(metric, labels):
    return [(f'histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{labels}}}{RATE})))', name)
            for q, name in ((0.5, "half"), (0.9, "9 of 10"), (0.99, "99 of 100"))]


OVERVIEW = [
    ("Is it up", [
        ("some", "Pipelines ready", "Pipelines that take requests; 0 is an outage.", "short",
         [(f'sum by (model_name) (sauva_pipelines_ready{{{COORDINATOR},model_name=~"$model"}})',
           "{{model_name}}")]),
        ("some", "Gateways ready", "Gateways that take requests; 0 is an outage.", "short",
         [(f'sum(sauva_gateway_ready{{{GATEWAY_ALL}}})', "ready")]),
        ("none", "Processes down", "Processes that do not answer a scrape.", "short",
         [(f'sum(1 - up{{role=~"gateway|coordinator|worker",{NS}}})', "down")]),
        ("table", "Who is there", "1: answers scrapes. Build by instance.", "short",
         [(f'up{{role=~"gateway|coordinator|worker",{NS}}}', ""),
          (f'sauva_build_info{{{NS}}}', "")]),
        ("graph", "Workers by what they do", "As the coordinator sees them.", "short",
         [(f'sum by (state) (sauva_workers{{{COORDINATOR}}})', "{{state}}")]),
    ]),
    ("Traffic", [
        ("graph", "Requests ended per second", "Ended well, by reason.", "reqps",
         [(f'sum by (finished_reason) (rate(sauva_request_success_total{{{GATEWAY}}}{RATE}))',
           "{{finished_reason}}")]),
        ("graph", "Tokens per second", "Prompt tokens taken and tokens delivered.", "short",
         [(f'sum(rate(sauva_prompt_tokens_total{{{GATEWAY}}}{RATE}))', "prompt"),
          (f'sum(rate(sauva_generation_tokens_total{{{GATEWAY}}}{RATE}))', "delivered")]),
        ("graph", "Running and waiting", "Samples in the gateways.", "short",
         [(f'sum(sauva_num_requests_running{{{GATEWAY}}})', "running"),
          (f'sum(sauva_num_requests_waiting{{{GATEWAY}}})', "waiting")]),
        ("graph", "Queued tokens and waiting dispatches", "What waits for a pipeline.", "short",
         [(f'sum(sauva_queued_tokens{{{GATEWAY_ALL}}})', "tokens at gateways"),
          (f'sum(sauva_num_dispatches_waiting{{{COORDINATOR}}})', "dispatches at the coordinator")]),
    ]),
    ("Latency", [
        ("graph", "Time to first token", "From a request's arrival.", "s",
         quantiles("sauva_time_to_first_token_seconds", GATEWAY)),
        ("graph", "Between tokens", "Of one sample.", "s",
         quantiles("sauva_inter_token_latency_seconds", GATEWAY)),
        ("graph", "Whole request", "From arrival to end.", "s",
         quantiles("sauva_e2e_request_latency_seconds", GATEWAY)),
        ("graph", "Time in the queue", "Until a head has taken it.", "s",
         quantiles("sauva_request_queue_time_seconds", GATEWAY)),
    ]),
    ("Errors", [
        ("graph", "Refused per second", "Before they ran; RESOURCE_EXHAUSTED is a full queue.", "reqps",
         [(f'sum by (reason) (rate(sauva_request_refusals_total{{{GATEWAY_ALL}}}{RATE}))',
           "{{reason}}")]),
        ("graph", "Failed per second", "After they ran; CANCELLED is the client's wish.", "reqps",
         [(f'sum by (reason) (rate(sauva_request_failures_total{{{GATEWAY}}}{RATE}))',
           "{{reason}}")]),
        ("graph", "Bad requests, of all", "The objective is 0.1 %.", "percentunit",
         [(f'sauva:requests_bad:ratio5m{{{NS}}}', "5 minutes"),
          (f'sauva:requests_bad:ratio1h{{{NS}}}', "1 hour")]),
        ("graph", "Late first tokens, of all", "Later than 2.5 s; the objective is 5 %.", "percentunit",
         [(f'sauva:first_tokens_late:ratio5m{{{NS}}}', "5 minutes"),
          (f'sauva:first_tokens_late:ratio1h{{{NS}}}', "1 hour")]),
        ("graph", "Streams resumed", "Moved to another pipeline without the client noticing.", "short",
         [(f'sum(increase(sauva_resumes_total{{{GATEWAY}}}{RATE}))', "all"),
          (f'sum(increase(sauva_inexact_resumes_total{{{GATEWAY}}}{RATE}))', "of unequal numerics")]),
        ("graph", "Spans per second", "Sent to the collector of --otlp.", "short",
         [(f'sum(rate(sauva_spans_sent_total{{{GATEWAY_ALL}}}{RATE}))', "taken"),
          (f'sum(rate(sauva_spans_dropped_total{{{GATEWAY_ALL}}}{RATE}))', "dropped")]),
        ("graph", "KV cache in use", "By the head of each pipeline.", "percentunit",
         [(f'sauva_kv_cache_usage_perc{{{WORKER}}} and on (instance) sauva_stage_index{{{WORKER}}} == 0',
           "{{instance}}")]),
    ]),
]

PIPELINE = [
    ("Stages", [
        ("graph", "Compute time of a step", "Mean by stage; the slowest sets the pace.", "s",
         [(f'sauva:stage_step_seconds:mean5m{{{NS}}}', "{{instance}}")]),
        ("graph", "Compute time of a step, 99 of 100", "By stage.", "s",
         [(f'histogram_quantile(0.99, sum by (instance, le) (rate(sauva_stage_step_seconds_bucket{{{WORKER}}}{RATE})))',
           "{{instance}}")]),
        ("graph", "Waiting share", "Of its time a stage waits for others; low at one stage alone is the bottleneck.",
         "percentunit",
         [(f'1 - clamp_max(rate(sauva_stage_step_seconds_sum{{{WORKER}}}{RATE}), 1)', "{{instance}}")]),
        ("graph", "Steps per second", "By stage.", "short",
         [(f'rate(sauva_stage_steps_total{{{WORKER}}}{RATE})', "{{instance}}")]),
        ("graph", "Place and layers", "Stage index (-1: spare) and number of layers.", "short",
         [(f'sauva_stage_index{{{WORKER}}}', "index {{instance}}"),
          (f'sauva_stage_layers{{{WORKER}}}', "layers {{instance}}")]),
        ("graph", "Serving and connected", "1: serves a stage; 1: the coordinator knows of it.", "short",
         [(f'sauva_stage_serving{{{WORKER}}}', "serving {{instance}}"),
          (f'sauva_coordinator_connected{{{WORKER}}}', "connected {{instance}}")]),
    ]),
    ("Links", [
        ("graph", "Hidden states between stages", "By worker and direction.", "Bps",
         [(f'sum by (instance, direction) (rate(sauva_link_bytes_total{{{WORKER}}}{RATE}))',
           "{{instance}} {{direction}}")]),
        ("graph", "Wait for hidden states", "Mean per step: the stage before, and the link from it.", "s",
         [(f'sauva:hidden_wait_seconds:mean5m{{{NS}}}', "{{instance}}")]),
        ("graph", "Stale messages", "Of another epoch, dropped.", "short",
         [(f'rate(sauva_stale_messages_total{{{WORKER}}}{RATE})', "{{instance}}")]),
    ]),
    ("Heads", [
        ("graph", "Sequences", "Running and waiting at each head.", "short",
         [(f'sauva_num_requests_running{{{WORKER}}}', "running {{instance}}"),
          (f'sauva_num_requests_waiting{{{WORKER}}}', "waiting {{instance}}")]),
        ("graph", "Preemptions", "Sequences put back for want of KV blocks.", "short",
         [(f'rate(sauva_num_preemptions_total{{{WORKER}}}{RATE})', "{{instance}}")]),
        ("graph", "Prompt tokens from the prefix cache", "Share of all prompt tokens.", "percentunit",
         [(f'sum(rate(sauva_prompt_tokens_cached_total{{{WORKER}}}{RATE})) / sum(rate(sauva_prompt_tokens_total{{{WORKER}}}{RATE}))',
           "cached")]),
        ("graph", "Requests ended and refused by heads", "A refused one is sent elsewhere by its gateway.", "reqps",
         [(f'sum by (finished_reason) (rate(sauva_request_success_total{{{WORKER}}}{RATE}))',
           "{{finished_reason}}"),
          (f'sum by (reason) (rate(sauva_refusals_total{{{WORKER}}}{RATE}))', "refused {{reason}}"),
          (f'sum by (reason) (rate(sauva_request_failures_total{{{WORKER}}}{RATE}))', "broke off {{reason}}")]),
        ("graph", "Tokens per second", "Generated by heads.", "short",
         [(f'rate(sauva_generation_tokens_total{{{WORKER}}}{RATE})', "{{instance}}")]),
        ("graph", "Requests resumed here", "That brought tokens of another pipeline.", "short",
         [(f'increase(sauva_resumed_requests_total{{{WORKER}}}{RATE})', "{{instance}}")]),
    ]),
    ("Memory", [
        ("graph", "Memory of a stage by share", "Weights, KV cache, scratch.", "bytes",
         [(f'sauva_memory_bytes{{{WORKER}}}', "{{share}} {{instance}}")]),
        ("graph", "Budget in use", "Of the memory a worker may take.", "percentunit",
         [(f'sum by (instance) (sauva_memory_bytes{{{WORKER}}}) / on (instance) sauva_memory_budget_bytes{{{WORKER}}}',
           "{{instance}}")]),
        ("graph", "Resident memory", "Of every process.", "bytes",
         [(f'process_resident_memory_bytes{{role=~".+",{NS}}}', "{{role}} {{instance}}")]),
        ("graph", "KV cache in use", "Share of the pipeline's blocks.", "percentunit",
         [(f'sauva_kv_cache_usage_perc{{{WORKER}}}', "{{instance}}")]),
        ("graph", "KV blocks", "Of the pool of each pipeline.", "short",
         [(f'sauva_kv_cache_blocks{{{WORKER}}}', "{{instance}}")]),
        ("graph", "Processor time", "Cores in use by process.", "short",
         [(f'rate(process_cpu_seconds_total{{role=~".+",{NS}}}{RATE})', "{{role}} {{instance}}")]),
        ("graph", "Open files and threads", "Of every process.", "short",
         [(f'process_open_fds{{role=~".+",{NS}}}', "files {{instance}}"),
          (f'process_threads{{role=~".+",{NS}}}', "threads {{instance}}")]),
    ]),
    ("Epochs", [
        ("graph", "Epochs", "Pipelines started, ready, adopted and ended.", "short",
         [(f'sum by (event) (increase(sauva_epochs_total{{{COORDINATOR}}}{RATE}))', "{{event}}")]),
        ("graph", "Epochs at workers", "Begun and broken.", "short",
         [(f'sum(increase(sauva_epochs_started_total{{{WORKER}}}{RATE}))', "begun"),
          (f'sum(increase(sauva_epochs_broken_total{{{WORKER}}}{RATE}))', "broken")]),
        ("graph", "Epoch each worker is in", "Number since the coordinator's start; unequal ones are different pipelines.",
         "short",
         [(f'sauva_epoch_number{{{WORKER}}}', "{{instance}}")]),
        ("graph", "Coordinator that gave the epoch", "Its start, by worker.", "dateTimeAsIso",
         [(f'1000 * sauva_epoch_start_seconds{{{WORKER}}}', "{{instance}}")]),
        ("graph", "Placement", "Searches, refusals, pipelines and bytes read anew.", "short",
         [(f'sum(increase(sauva_placements_total{{{COORDINATOR}}}{RATE}))', "searches"),
          (f'sum(increase(sauva_placement_refusals_total{{{COORDINATOR}}}{RATE}))', "refusals"),
          (f'sum(sauva_placement_refused{{{COORDINATOR}}})', "missing now"),
          (f'sum(sauva_pipelines{{{COORDINATOR}}})', "pipelines"),
          (f'sum(increase(sauva_placement_moved_bytes_total{{{COORDINATOR}}}{RATE}))', "bytes moved")]),
        ("graph", "Workers lost", "By the coordinator.", "short",
         [(f'sum(increase(sauva_workers_lost_total{{{COORDINATOR}}}{RATE}))', "lost")]),
        ("graph", "Dispatches", "By outcome, and refused joins, loads and drains.", "reqps",
         [(f'sum by (outcome) (rate(sauva_dispatches_total{{{COORDINATOR}}}{RATE}))', "{{outcome}}"),
          (f'sum by (reason) (rate(sauva_refusals_total{{{COORDINATOR}}}{RATE}))', "refused {{reason}}")]),
    ]),
]

# A number of which there must be some, and one of which there must be none.
COLOURS = {"some": ("red", "green"), "none": ("green", "red")}
KINDS = {"graph": "timeseries", "some": "stat", "none": "stat", "table": "table"}


def panel(number, spec, x, y, width):
    kind, title, description, unit, queries = spec
    targets = []
    for index, (expression, legend) in enumerate(queries):
        target = {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend,
                  "datasource": {"type": "prometheus", "uid": "$datasource"}}
        if kind != "graph":
            target["instant"] = True
        if kind == "table":
            target["format"] = "table"
        targets.append(target)
    defaults = {"unit": unit, "min": 0}
    if kind in COLOURS:
        below, from_one = COLOURS[kind]
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": below, "value": None},
                                                                {"color": from_one, "value": 1}]}
    return {"id": number, "type": KINDS[kind], "title": title, "description": description,
            "datasource": {"type": "prometheus", "uid": "$datasource"},
            "gridPos": {"x": x, "y": y, "w": width, "h": 7}, "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": []}}


def variable(name, query):
    return {"name": name, "type": "query", "label": name, "query": query, "refresh": 2,
            "datasource": {"type": "prometheus", "uid": "$datasource"}, "includeAll": True,
            "allValue": ".*", "multi": True, "current": {"text": "All", "value": "$__all"}}


def dashboard(uid, title, rows):
    panels, number, y = [], 1, 0
    for name, specs in rows:
        panels.append({"id": number, "type": "row", "title": name, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        number, y = number + 1, y + 1
        for index, spec in enumerate(specs):
            panels.append(panel(number, spec, 8 * (index % 3), y + 7 * (index // 3), 8))
            number += 1
        y += 7 * ((len(specs) + 2) // 3)
    return {"uid": uid, "title": title, "tags": ["sauva"], "schemaVersion": 39, "version": 1,
            "editable": True, "refresh": "15s", "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "datasource"},
                variable("namespace", "label_values(sauva_build_info, namespace)"),
                variable("model", 'label_values(sauva_pipelines_ready{namespace=~"$namespace"}, model_name)')]},
            "panels": panels}


def main():
    check = sys.argv[1:] == ["--check"]
    changed = []
    for name, content in (("overview", dashboard("sauva-overview", "Saúva: overview", OVERVIEW)),
                          ("pipeline", dashboard("sauva-pipeline", "Saúva: pipeline and memory", PIPELINE))):
        path = os.path.join(HERE, "dashboards", name + ".json")
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        old = open(path, encoding="utf-8").read() if os.path.exists(path) else ""
        if old != text:
            changed.append(path)
            if not check:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
    if check and changed:
        sys.exit("run monitoring/make_dashboards.py: it changes " + ", ".join(changed))


if __name__ == "__main__":
    main()
