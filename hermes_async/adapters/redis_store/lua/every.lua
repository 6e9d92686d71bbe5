-- What every script ends with: do each call, then what is done once for all of them; return their replies. What fails is
-- one call.
if ALONE then -- as most are: what follows would take longer than what it spares
  PREFIX, ARGV = KEYS[1], GIVEN
  local reply = call()
  if AFTERWARDS then AFTERWARDS() end
  return {reply or false}
end

local function own(at)
  local args = {MAXLEN, MAX_RUNNING, RESEND, GRACE}
  for i = at + 1, at + GIVEN[at] do args[#args + 1] = GIVEN[i] end
  return args
end

local function all()
  local replies, at = {}, 5
  for i, prefix in ipairs(KEYS) do
    PREFIX, ARGV, READY = prefix, own(at), {}
    local done, reply = pcall(call)
    if not done and type(reply) ~= 'table' then reply = {err = reply} end
    replies[i] = reply or false
    at = at + 1 + GIVEN[at]
  end
  if AFTERWARDS then AFTERWARDS() end
  return replies
end

local function write(name, members)
  local placed, gone = {}, {}
  local function flush(command, args)
    if args[1] then redis.call(command, name, unpack(args)) end
    return {}
  end
  for member, score in pairs(members) do
    if score then
      placed[#placed + 1] = score
      placed[#placed + 1] = member
    else
      gone[#gone + 1] = member
    end
    if #placed >= 1000 then placed = flush('ZADD', placed) end
    if #gone >= 1000 then gone = flush('ZREM', gone) end
  end
  flush('ZADD', placed)
  flush('ZREM', gone)
end

local done, replies = pcall(all)
for session, logged in pairs(LOGGED) do
  if logged.more > 0 then redis.call('HINCRBY', session, 'seq', logged.more) end
end
for field, n in pairs(COUNTED) do redis.call('HINCRBY', METRICS, field, n) end
for name, members in pairs(INDEXED) do write(name, members) end
if done then return replies end
return type(replies) == 'table' and replies or redis.error_reply(replies)
