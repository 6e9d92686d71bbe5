-- A reader has come to an event of a session's log. If that is not there any more, the server has lost its last writes,
-- or was given an older copy: the log goes on beyond what the reader knows, with a hole, so that nobody takes what comes
-- for what he has read. Returns the seq of the event that says so, or 0.
local session, seq, id = unpack(ARGV, 5)
seq = tonumber(seq)
local last = tonumber(redis.call('HGET', key('session', session), 'seq') or 0)
local entry = redis.call('XRANGE', key('events', session), seq .. '-0', seq .. '-0')[1]
local is_there = entry and (id == '' or entry[2][2] == id)
if is_there or (not entry and last >= seq) then return 0 end -- or it was trimmed

local through = math.max(last, seq) + 1
redis.call('HSET', key('session', session), 'seq', tostring(through))
if not ALONE then LOGGED[key('session', session)] = nil end
redis.call('ZADD', key('sessions'), 'NX', STAMP, session)
return log(session, '0', session .. ':' .. through .. ':restored', 'session.restored', '', '', '0', '',
           cjson.encode({through = through}))
