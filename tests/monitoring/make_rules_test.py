#!/usr/bin/env python3
"""Prints promtool's unit tests of monitoring/rules.yaml: one scenario in which all is well and no
alert fires, and one per alert, equal but for the series it changes, in which exactly the named
alerts fire.

usage: make_rules_test.py RULES.yaml
"""

import json
import sys

HOURS = 7 * 60  # minutes

W0 = 'role="worker",instance="w0",namespace="ml"'
W1 = 'role="worker",instance="w1",namespace="ml"'
GW = 'role="gateway",instance="g0",namespace="ml"'
CO = 'role="coordinator",instance="c0",namespace="ml"'
MODEL = GW + ',model_name="prose"'

WELL = {
    f'up{{{W0}}}': f"1x{HOURS}", f'up{{{W1}}}': f"1x{HOURS}",
    f'up{{{GW}}}': f"1x{HOURS}", f'up{{{CO}}}': f"1x{HOURS}",
    f'sauva_pipelines_ready{{{CO},model_name="prose"}}': f"1x{HOURS}",
    f'sauva_gateway_ready{{{GW}}}': f"1x{HOURS}",
    f'sauva_placement_refused{{{CO}}}': f"0x{HOURS}",
    f'sauva_workers_lost_total{{{CO}}}': f"0x{HOURS}",
    f'sauva_epochs_broken_total{{{W0}}}': f"0x{HOURS}",
    f'sauva_coordinator_connected{{{W0}}}': f"1x{HOURS}",
    f'sauva_coordinator_connected{{{W1}}}': f"1x{HOURS}",
    f'sauva_request_success_total{{{MODEL},finished_reason="stop"}}': f"0+600x{HOURS}",
    f'sauva_request_failures_total{{{MODEL},reason="INTERNAL"}}': f"0x{HOURS}",
    # What clients do is no fault of the service.
    f'sauva_request_failures_total{{{MODEL},reason="CANCELLED"}}': f"0+300x{HOURS}",
    f'sauva_request_refusals_total{{{GW},reason="INVALID_ARGUMENT"}}': f"0+300x{HOURS}",
    f'sauva_request_refusals_total{{{GW},reason="RESOURCE_EXHAUSTED"}}': f"0x{HOURS}",
    f'sauva_request_refusals_total{{{GW},reason="UNAVAILABLE"}}': f"0x{HOURS}",
    f'sauva_time_to_first_token_seconds_count{{{MODEL}}}': f"0+600x{HOURS}",
    f'sauva_time_to_first_token_seconds_bucket{{{MODEL},le="2.5"}}': f"0+600x{HOURS}",
    f'sauva_request_queue_time_seconds_bucket{{{MODEL},le="10"}}': f"0+600x{HOURS}",
    f'sauva_request_queue_time_seconds_bucket{{{MODEL},le="20"}}': f"0+600x{HOURS}",
    f'sauva_request_queue_time_seconds_bucket{{{MODEL},le="+Inf"}}': f"0+600x{HOURS}",
    # Each stage computes 40 s of a minute in 2000 steps.
    f'sauva_stage_step_seconds_sum{{{W0}}}': f"0+40x{HOURS}",
    f'sauva_stage_step_seconds_count{{{W0}}}': f"0+2000x{HOURS}",
    f'sauva_stage_step_seconds_sum{{{W1}}}': f"0+40x{HOURS}",
    f'sauva_stage_step_seconds_count{{{W1}}}': f"0+2000x{HOURS}",
    # Hidden states come 25 ms after their header.
    f'sauva_hidden_wait_seconds_total{{{W1}}}': f"0+50x{HOURS}",
    f'sauva_hidden_waits_total{{{W1}}}': f"0+2000x{HOURS}",
    f'sauva_stage_index{{{W0}}}': f"0x{HOURS}", f'sauva_stage_index{{{W1}}}': f"1x{HOURS}",
    f'sauva_kv_cache_usage_perc{{{W0}}}': f"0.99x{HOURS}",
    f'sauva_num_preemptions_total{{{W0}}}': f"0x{HOURS}",
    f'sauva_spans_dropped_total{{{GW}}}': f"0x{HOURS}",
    f'process_resident_memory_bytes{{{W0}}}': f"1000000+1000x{HOURS}",
    f'process_start_time_seconds{{{W0}}}': f"0x{HOURS}",
}

# What is wrong from the third hour on: (name, changed series, alerts that fire then).
THREE_HOURS = 180
LEFT = HOURS - THREE_HOURS


def after(before, later):
    return f"{before}x{THREE_HOURS} {later}x{LEFT}"


def gone(before):
    """A series that ends."""
    return f"{before}x{THREE_HOURS} _x{LEFT}"


def grows(before, later):
    """A counter that grows by `before` a minute, then by `later`."""
    return f"0+{before}x{THREE_HOURS} {before * THREE_HOURS + later}+{later}x{LEFT}"


FAULTS = [
    ("a worker does not answer", {f'up{{{W1}}}': after(1, 0)}, {"SauvaProcessDown"}),
    ("no pipeline is ready", {f'sauva_pipelines_ready{{{CO},model_name="prose"}}': after(1, 0)},
     {"SauvaNoReadyPipeline"}),
    ("no gateway is ready", {f'sauva_gateway_ready{{{GW}}}': after(1, 0)}, {"SauvaNoReadyGateway"}),
    ("the last gateway is gone", {f'up{{{GW}}}': gone(1), f'sauva_gateway_ready{{{GW}}}': gone(1)},
     {"SauvaNoReadyGateway"}),
    ("a pipeline cannot be placed", {f'sauva_placement_refused{{{CO}}}': after(0, 1)},
     {"SauvaPlacementRefused"}),
    ("a few requests meet a full queue",
     {f'sauva_request_refusals_total{{{GW},reason="RESOURCE_EXHAUSTED"}}': grows(0, 0.2)},
     {"SauvaQueueFull"}),
    ("requests wait 20 s",
     {f'sauva_request_queue_time_seconds_bucket{{{MODEL},le="10"}}': grows(600, 60)},
     {"SauvaRequestsWait"}),
    ("workers are lost one after the other", {f'sauva_workers_lost_total{{{CO}}}': grows(0, 1)},
     {"SauvaWorkersLost"}),
    ("pipelines break again and again", {f'sauva_epochs_broken_total{{{W0}}}': grows(0, 1)},
     {"SauvaPipelinesBreak"}),
    ("a worker has no coordinator", {f'sauva_coordinator_connected{{{W1}}}': after(1, 0)},
     {"SauvaWorkerAlone"}),
    ("one stage takes thrice as long", {f'sauva_stage_step_seconds_sum{{{W1}}}': grows(40, 55),
                                        f'sauva_stage_step_seconds_sum{{{W0}}}': grows(40, 18)},
     {"SauvaSlowStage"}),
    ("a stage is slow but idle", {f'sauva_stage_step_seconds_sum{{{W1}}}': grows(40, 25),
                                  f'sauva_stage_step_seconds_sum{{{W0}}}': grows(40, 5)}, set()),
    ("hidden states come late", {f'sauva_hidden_wait_seconds_total{{{W1}}}': grows(50, 500)},
     {"SauvaSlowLink"}),
    ("sequences are preempted", {f'sauva_num_preemptions_total{{{W0}}}': grows(0, 6)},
     {"SauvaKvCacheFull"}),
    ("memory grows by half within the hour",
     {f'process_resident_memory_bytes{{{W0}}}': f"1000000x{THREE_HOURS} 1500000x{LEFT}"},
     {"SauvaMemoryGrows"}),
    ("one request in ten fails",
     {f'sauva_request_failures_total{{{MODEL},reason="INTERNAL"}}': grows(0, 67)},
     {"SauvaAvailabilityBurnsFast", "SauvaAvailabilityBurnsSlowly"}),
    ("one request in a hundred fails",
     {f'sauva_request_failures_total{{{MODEL},reason="INTERNAL"}}': grows(0, 6.1)},
     set()),
    ("one request in seventy failed since the beginning",
     {f'sauva_request_failures_total{{{MODEL},reason="INTERNAL"}}': f"0+8.2x{HOURS}"},
     {"SauvaAvailabilityBurnsSlowly"}),
    ("gateways that never served a model refuse all",
     {key: f"_x{HOURS}" for key in WELL if MODEL in key}
     | {f'sauva_request_refusals_total{{{GW},reason="UNAVAILABLE"}}': f"0+600x{HOURS}"},
     {"SauvaAvailabilityBurnsFast", "SauvaAvailabilityBurnsSlowly"}),
    ("the collector takes no more spans", {f'sauva_spans_dropped_total{{{GW}}}': grows(0, 50)},
     {"SauvaSpansDropped"}),
    ("the collector was away for three minutes",
     {f'sauva_spans_dropped_total{{{GW}}}':
      f"0x{THREE_HOURS + 47} 50+50x2 150x{LEFT - 50}"}, set()),
    ("nine first tokens in ten are late",
     {f'sauva_time_to_first_token_seconds_bucket{{{MODEL},le="2.5"}}': grows(600, 60)},
     {"SauvaFirstTokensLateFast"}),
    ("half of the first tokens were late since the beginning",
     {f'sauva_time_to_first_token_seconds_bucket{{{MODEL},le="2.5"}}': f"0+300x{HOURS}"},
     {"SauvaFirstTokensLateSlowly"}),
]
# An hour after a fault began; then the fast alerts are past their long window.
AN_HOUR_LATER = f"{THREE_HOURS + 55}m"


def scenario(name, changes, alerts):
    unknown = set(changes) - set(WELL)
    assert not unknown, f"{name}: {unknown} is not among the series that are well"
    series = {**WELL, **changes}
    return {"name": name, "interval": "1m",
            "input_series": [{"series": key, "values": value} for key, value in series.items()],
            "promql_expr_test": [{
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": AN_HOUR_LATER,
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}
                                for alert in sorted(alerts)]}]}


def main():
    tests = [scenario("all is well", {}, set())]
    tests += [scenario(*fault) for fault in FAULTS]
    # JSON is YAML.
    print(json.dumps({"rule_files": [sys.argv[1]], "evaluation_interval": "1m", "tests": tests},
                     indent=1))


if __name__ == "__main__":
    main()
