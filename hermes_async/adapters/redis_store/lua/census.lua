-- How the tasks of this partition stand; returns {queued, running, input_required, the birth of the oldest that waits
-- for its first attempt or 0, NOW}.
local function oldest()
  for _, id in ipairs(redis.call('ZRANGE', key('by-status', 'queued'), 0, ARGV[5])) do
    local is = redis.call('HMGET', key('task', id), 'attempt', 'created_at')
    if is[1] == '0' then return tonumber(is[2]) end
  end
  return 0
end

return {redis.call('ZCARD', key('by-status', 'queued')), redis.call('ZCARD', key('by-status', 'running')),
        redis.call('ZCARD', key('by-status', 'input_required')), oldest(), NOW}
