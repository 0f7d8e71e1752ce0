-- Each request asks for the next of the hosts that stand behind -- on the command line.
dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "report.lua")

local requests = {}
local turn = 0

function init(hosts)
   for number, host in ipairs(hosts) do
      wrk.headers["Host"] = host
      requests[number] = wrk.format()
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end
