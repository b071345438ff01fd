-- What each agent cost on each day (UTC): tasks, tokens, cost.
SELECT
    agent_role,
    CAST(date_trunc('day', event_time) AS DATE) AS date,
    environment, org_id, business_unit_id, team_id, project_id,
    count(DISTINCT coalesce(agent_task_id, event_id)) AS total_tasks,
    sum(tokens_total) AS total_tokens,
    coalesce(sum(cost_usd), 0) AS total_cost_usd
FROM ledger
GROUP BY 1, 2, 3, 4, 5, 6, 7
