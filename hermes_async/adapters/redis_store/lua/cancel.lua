-- Ask a task, and what is below it, to stop; returns {tasks that run, tasks that ended before they began, READY}.
local asked, data, below, due, token = unpack(ARGV, 5)
local is_repeated = redis.call('HGET', key('task', asked), 'canceller') == token
local running, ended = cascade({asked}, below == '1', data, due)
if running[#running] == asked or ended[#ended] == asked then -- it comes after what is below it
  redis.call('HSET', key('task', asked), 'canceller', token)
elseif is_repeated then -- the reply to this very call was lost
  ended[#ended + 1] = asked
end
return {running, ended, READY}
