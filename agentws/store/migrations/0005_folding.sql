-- readable from: 2
--
-- Finished answers kept as one event, events kept for a limited time, and idempotency keys that expire.

SELECT 1;
