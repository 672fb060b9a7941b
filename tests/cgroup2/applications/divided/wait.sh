#!/bin/sh
sleep 3
echo waited
