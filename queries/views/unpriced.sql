-- Models without a price, why, and how much usage waits for one (RATE-3: their cost is not known, and not zero).
SELECT
    model_provider, model_name, unpriced_reason,
    count(*) AS events,
    sum(tokens_input) AS tokens_input,
    sum(tokens_output) AS tokens_output,
    min(event_time) AS first_seen,
    max(event_time) AS last_seen
FROM ledger
WHERE status = 'unpriced'
GROUP BY 1, 2, 3
