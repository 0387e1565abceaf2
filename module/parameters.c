// SPDX-License-Identifier: GPL-2.0
/*
 * The module's parameters, in /sys/module/jit/parameters, and the list of who
 * holds what in debugfs. The kernel crate's parameters can't be written after
 * the module was loaded. Declared once for Rust, in parameters.rs.
 */
#include <linux/debugfs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>

/* The least that a program needs to start with, in pages. */
#define LEAST_PAGES	256
/*
 * Pages of all users, and of one user, as a part of RAM: it takes four users to
 * leave nothing to others. That all of them have half of RAM is no more than one
 * tmpfs may: the OOM killer sees the pages where they are held.
 */
#define TOTAL_PART	2
#define USER_PART	8

bool jit_stop;
module_param_named(stop, jit_stop, bool, 0644);
MODULE_PARM_DESC(stop, "Refuse all new code (ESHUTDOWN); what is there goes on");

long jit_user_pages;
module_param_named(user_pages, jit_user_pages, long, 0644);
MODULE_PARM_DESC(user_pages, "Pages one user may have (default: an eighth of RAM)");

long jit_user_regions = 65536;
module_param_named(user_regions, jit_user_regions, long, 0644);
MODULE_PARM_DESC(user_regions, "Regions and created codes one user may have");

long jit_total_pages;
module_param_named(total_pages, jit_total_pages, long, 0644);
MODULE_PARM_DESC(total_pages, "Pages all users together may have (default: half of RAM)");

long jit_total_regions = 262144;
module_param_named(total_regions, jit_total_regions, long, 0644);
MODULE_PARM_DESC(total_regions, "Regions and created codes of all users together");

long jit_total_mappings = 4194304;
module_param_named(total_mappings, jit_total_mappings, long, 0644);
MODULE_PARM_DESC(total_mappings, "Mappings that all users together may make");

long jit_user_mappings = 1048576;
module_param_named(user_mappings, jit_user_mappings, long, 0644);
MODULE_PARM_DESC(user_mappings, "Mappings one user may have");

long jit_holder_mappings = 256;
module_param_named(holder_mappings, jit_holder_mappings, long, 0644);
MODULE_PARM_DESC(holder_mappings, "Mappings of one region that is not sealed by one address space, or by another user");

long jit_retired_region = 4096;
module_param_named(retired_region, jit_retired_region, long, 0644);
MODULE_PARM_DESC(retired_region, "Replaced pages of one region that may wait to be freed");

int jit_accessed_bit = -1;
module_param_named(accessed_bit, jit_accessed_bit, int, 0444);
MODULE_PARM_DESC(accessed_bit, "Whether an entry never accessed was never cached: 1, 0, or -1 for what the CPU's vendor promises");

void jit_parameters_init(void);
void jit_parameters_init(void)
{
	long ram = totalram_pages();

	if (!jit_user_pages)
		jit_user_pages = max(ram / USER_PART, LEAST_PAGES);
	if (!jit_total_pages)
		jit_total_pages = max(ram / TOTAL_PART,
				      LEAST_PAGES * (USER_PART / TOTAL_PART));
}

/* In debugfs.rs. */
void jit_show_users(struct seq_file *m);

static int users_show(struct seq_file *m, void *unused)
{
	jit_show_users(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(users);

struct dentry *jit_debugfs_create(void);
struct dentry *jit_debugfs_create(void)
{
	struct dentry *dir = debugfs_create_dir("jit", NULL);

	debugfs_create_file("users", 0400, dir, NULL, &users_fops);
	return dir;
}

void jit_debugfs_remove(struct dentry *dir);
void jit_debugfs_remove(struct dentry *dir)
{
	debugfs_remove(dir);
}
