-- What was spent in each day (UTC), by every dimension.
SELECT
    date_trunc('day', window_start) AS window_start,
    environment, org_id, business_unit_id, team_id, project_id, agent_role, model_provider, model_name,
    sum(events) AS events,
    sum(unpriced) AS unpriced,
    sum(late) AS late,
    sum(cost_usd) AS cost_usd,
    sum(reported_cost_usd) AS reported_cost_usd,
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
    sum(duration_ms) AS duration_ms,
    sum(mcp_overhead_ms) AS mcp_overhead_ms
FROM cost_minute
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
