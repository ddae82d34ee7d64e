"""The Lua scripts of the window store. Redis runs a script whole, with nothing in between, so each
checks and writes at once; keys.py tells of the keys.

Each opens with a legend of its keys (with their Redis types), arguments and results. A refusal is
the word `owner` (another worker has claimed the partition since, or Redis has lost the epoch) or
`position` (Redis has lost writes of ours): nothing was written then.
"""

from __future__ import annotations

CLAIM = """
-- Begins a tenure: gives out an epoch that is larger than every earlier one.
-- KEYS  1 epoch       string, a decimal integer: the epoch of the partition's owner
--       2 position    string, a decimal integer: the offset after the newest event that is kept
--       3 theta       string: the content hash of the θ that all mappings are of
--       4 generation  string, a decimal integer: how often the windows began anew
-- ARGV  1 now_ms      the wall clock, and the least epoch: so that epochs keep growing even when
--                     Redis has lost them
-- Returns {epoch, position or nil, theta or nil, generation or nil, epoch before or nil}, all
-- strings. Writes: epoch.
local before = redis.call('GET', KEYS[1])
local epoch = math.max(tonumber(before or '0') + 1, tonumber(ARGV[1]))
redis.call('SET', KEYS[1], string.format('%.0f', epoch))
return {string.format('%.0f', epoch), redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3]),
        redis.call('GET', KEYS[4]), before}
"""

BEGIN_ANEW = """
-- Leaves all windows of the partition behind: those of the next generation have other keys.
-- KEYS  1 epoch       string, a decimal integer
--       2 generation  string, a decimal integer
-- ARGV  1 epoch       of our tenure
-- Returns the new generation, or a refusal. Writes: generation.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'owner' end
local generation = string.format('%.0f', tonumber(redis.call('GET', KEYS[2]) or '0') + 1)
redis.call('SET', KEYS[2], generation)
return tonumber(generation)
"""

APPEND = """
-- Keeps pairs and moves the position, all or nothing.
-- KEYS  1 epoch       string, a decimal integer
--       2 position    string, a decimal integer
--       3.. windows   stream, one for each adaptd stream: an entry for each pair, with fields
--                     x and y (float32, little-endian) and t (ms, UTC)
-- ARGV  1 epoch       of our tenure
--       2 position    as we left it; empty where we found none
--       3 position    to be kept from now on
--       4 size        pairs that a window keeps
--       5 ttl_s       seconds until a window that does not change expires; 0: never
--       6.. lengths   for each window how many pairs it must have before this; empty: any number
--       then pairs    five arguments each: the index in KEYS of its window, entry id, x, y, t
-- Returns {entry ids that were replays, damaged}, or a refusal. `damaged` are the indexes in KEYS
-- of windows that had another length, or a pair already: those are deleted, and the position with
-- them, until RESTORE writes them again. Writes: position, windows.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'owner' end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 'position' end
local replays, unlike, damaged = {}, {}, {}
for i = 3, #KEYS do
  local length = tonumber(ARGV[i + 3])
  unlike[i] = length and redis.call('XLEN', KEYS[i]) ~= length
end
for i = 4 + #KEYS, #ARGV, 5 do
  local added = redis.pcall('XADD', KEYS[tonumber(ARGV[i])], 'MAXLEN', '=', ARGV[4], ARGV[i + 1],
                            'x', ARGV[i + 2], 'y', ARGV[i + 3], 't', ARGV[i + 4])
  if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller') then return redis.error_reply(added.err) end
    replays[#replays + 1] = ARGV[i + 1]
    local window = tonumber(ARGV[i])
    unlike[window] = ARGV[window + 3] ~= ''
  end
end
if ARGV[5] ~= '0' then
  for i = 3, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
for i = 3, #KEYS do
  if unlike[i] then
    redis.call('DEL', KEYS[i])
    damaged[#damaged + 1] = i
  end
end
if #damaged > 0 then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[3]) end
return {replays, damaged}
"""

RESTORE = """
-- Writes windows again that an append found damaged, and then the position.
-- KEYS  1 epoch       string, a decimal integer
--       2 position    string, a decimal integer
--       3.. windows   stream, as in APPEND
-- ARGV  1 epoch       of our tenure
--       2 position    to be kept; empty while more windows are to come
--       3 ttl_s       seconds until a window that does not change expires; 0: never
--       4.. pairs     five arguments each, as in APPEND
-- Returns nil, or a refusal. Writes: position, windows.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'owner' end
for i = 3, #KEYS do redis.call('DEL', KEYS[i]) end
for i = 4, #ARGV, 5 do
  redis.call('XADD', KEYS[tonumber(ARGV[i])], ARGV[i + 1],
             'x', ARGV[i + 2], 'y', ARGV[i + 3], 't', ARGV[i + 4])
end
if ARGV[3] ~= '0' then
  for i = 3, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
end
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2]) end
"""

SHORTEN = """
-- Removes the oldest entries of windows, all or nothing. Repeating it changes nothing.
-- KEYS  1 epoch       string, a decimal integer
--       2 position    string, a decimal integer
--       3.. windows   stream
-- ARGV  1 epoch       of our tenure
--       2 position    as we left it; empty where we found none
--       3.. ids       by the index in KEYS of its window, the id from which on entries stay
-- Returns nil, or a refusal. Writes: windows.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'owner' end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 'position' end
for i = 3, #KEYS do redis.call('XTRIM', KEYS[i], 'MINID', '=', ARGV[i]) end
"""

MARK = """
-- Notes the θ that all of the partition's mappings are of.
-- KEYS  1 epoch       string, a decimal integer
--       2 theta       string
-- ARGV  1 epoch       of our tenure
--       2 theta       the content hash
-- Returns nil, or a refusal. Writes: theta.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'owner' end
redis.call('SET', KEYS[2], ARGV[2])
"""
