-- An attempt wants its place again; returns {1 it has it, 0 it waits, -1 it is not the attempt any more, READY}.
local id, attempt = unpack(ARGV, 5)
local is = redis.call('HMGET', key('task', id), 'status', 'attempt', 'question_id')
if is[2] ~= attempt then return {-1, READY} end
if is[1] == 'input_required' then -- its agent has stopped asking
  resume(id, is[3], cjson.encode({question_id = is[3], by = 'withdrawn'}))
elseif is[1] ~= 'running' then
  return {-1, READY}
end
local task = facts(id)
if redis.call('SISMEMBER', gate('admitted', task.lane), id) == 0
   and not redis.call('ZSCORE', gate('line', line_of(task)), id) then
  enter(id, task)
end
return {redis.call('SISMEMBER', gate('admitted', task.lane), id), READY}
