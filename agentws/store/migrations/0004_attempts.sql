-- readable from: 2
--
-- Runs that are handed from one process to another, and attempts that wait.

SELECT 1;
