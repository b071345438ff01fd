-- What was spent in each minute, by every dimension.
SELECT
    date_trunc('minute', event_time) AS window_start,
    environment, org_id, business_unit_id, team_id, project_id, agent_role, model_provider, model_name,
    count(*) AS events,
    count(*) FILTER (WHERE status = 'unpriced') AS unpriced,
    count(*) FILTER (WHERE late) AS late,
    coalesce(sum(cost_usd), 0) AS cost_usd,
    coalesce(sum(reported_cost_usd), 0) AS reported_cost_usd,
    sum(tokens_input) AS tokens_input,
    sum(tokens_output) AS tokens_output,
    sum(tokens_total) AS tokens_total,
    sum(usage_input) AS usage_input,
    sum(usage_cache_read) AS usage_cache_read,
    sum(usage_cache_write_5m) AS usage_cache_write_5m,
    sum(usage_cache_write_1h) AS usage_cache_write_1h,
    sum(usage_output) AS usage_output,
    sum(usage_reasoning) AS usage_reasoning,
    sum(usage_requests) AS usage_requests,
    coalesce(sum(duration_ms), 0) AS duration_ms,
    coalesce(sum(mcp_overhead_ms), 0) AS mcp_overhead_ms
FROM ledger
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
